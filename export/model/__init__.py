"""The decode step of DSA models in torch, written on the ops of `predecode.custom_kernels`."""
