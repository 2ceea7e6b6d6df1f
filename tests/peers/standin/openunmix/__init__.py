"""umx_np behind the names of Open-Unmix, with tensors for arrays; see README.md beside it."""

from .model import pretrained

umx = pretrained("umx")
umxhq = pretrained("umxhq")
umxl = pretrained("umxl")
umxse = pretrained("umxse")
