"""The algebra of axes: products and concatenations of index sets, their unification, masks, and symbolic sizes."""
