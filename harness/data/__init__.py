"""Files and GLUE become texts, then token ids."""
