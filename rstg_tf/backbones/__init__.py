"""Backbones: clip -> feature map [B, T, H, W, C], by named endpoints to which a graph can be attached."""
