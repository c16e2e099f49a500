"""A harness for hyperparameter stability studies: is my fine-tuning recipe stable, and if not, what makes it so?"""

__version__ = "0.1.0"
