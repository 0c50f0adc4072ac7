"""Networks, with their tokenizer and chat form."""
