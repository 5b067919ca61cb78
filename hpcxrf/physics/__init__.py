"""The differentiable model of an X-ray fluorescence spectrum."""
