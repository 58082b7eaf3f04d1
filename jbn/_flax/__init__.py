"""Code that the layers of Flax Linen and of Flax NNX, and their tools, share."""
