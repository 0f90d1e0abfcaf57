"""Exchange with other libraries: `zfcuda.interop.torch` for PyTorch. Imported only when asked for."""
