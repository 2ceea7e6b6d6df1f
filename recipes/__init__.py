"""How the models that ship with umx_np were made; not part of the installed package."""
