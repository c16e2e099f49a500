"""What is shipped so that the harness shows something without any network: a small model and the language it speaks.

The model's folder is a Hugging Face BERT folder and loads like any other; `harness.pretraining.pretrain` rebuilds
it. The language and its fine-tuning data are in `harness.data.embedded.language`.
"""

from pathlib import Path


def model_folder() -> Path:
    """Give the folder of the shipped encoder, for `from_pretrained`."""
    return Path(__file__).parent / "model"
