"""The formats that PyTorch itself opens: tensors alone, and two kinds of program."""
