"""The contestants: one file each, all training the same GPT-2 from the same weights on the same batches."""
