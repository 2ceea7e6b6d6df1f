"""Runs the CUDA kernels of the package on the processor, thread by thread, and watches them.

`cuda.h` gives g++ the names of CUDA, `runtime.cpp` runs the threads of a launch as fibers,
`building.py` compiles, `launching.py` launches, and `cupy_standin.py` is as much of CuPy as the
package uses, over NumPy.
"""
