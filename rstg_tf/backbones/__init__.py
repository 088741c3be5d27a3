"""Backbones: clip [B, T, H, W, C] -> feature map [B, T', H', W', C'].

Each is a layer with `map_shape(video_shape)`. `resnet50.ResNet50` has named stages, res2 … res5, inside which graphs
and non-local blocks sit; `small_convnet.SmallConvnet` has none.
"""
