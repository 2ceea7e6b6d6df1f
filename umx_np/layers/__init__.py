"""The layers of the network in plain NumPy, forward and backward, and how they are composed.

Each layer is a file of two functions, ``<layer>_forward`` and ``<layer>_backward``; `stages`
composes them. They are the specification of what every device computes, in training and after it.
"""
