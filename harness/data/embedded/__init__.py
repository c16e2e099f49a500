"""What is shipped so that the harness shows something without any network: a small model and the language it speaks.

The models' folders are a Hugging Face BERT and a GPT-2 and load like any other; `harness.pretraining.pretrain` rebuilds
them. The language and its fine-tuning data are in `harness.data.embedded.language`, as prompts and answers in
`harness.data.embedded.answers`.
"""

from pathlib import Path


def model_folder() -> Path:
    """Give the folder of the shipped encoder, for `from_pretrained`."""
    return Path(__file__).parent / "model"
