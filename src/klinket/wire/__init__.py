"""What crosses a wire, without any input or output: formats, tokens, frames and their cryptography."""
