"""The OpenAI-compatible address: the only process that holds models for inference."""
