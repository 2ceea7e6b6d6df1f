"""The room of CUDA: kernels in CUDA C++ and what compiles and launches them."""
