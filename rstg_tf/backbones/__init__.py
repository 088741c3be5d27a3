"""Backbones: clip [B, T, H, W, C] -> feature map [B, T', H', W', C'].

`resnet50.ResNet50` has named stages, res2 … res5, inside which graphs and non-local blocks sit;
`small_convnet.SmallConvnet` has none. Each is a Keras layer with what `VideoClassifier` (rstg_tf/model.py) asks of it:

    build(input_shape)              the weights, from the shape of a clip; ValueError for clips that it cannot take
    call(video, training=False)     scaled pixels, float [B, T, H, W, C] -> the map [B, T', H', W', C']
    map_shape(video_shape)          the map's shape, without weights; None for B and T where they are unknown
    noncausal_reasons()             a sentence for each part that looks at frames to come; [] if it can stream

One that can stream (see `rstg_tf.layers.streaming_state`) also has

    call(video, states, training)   a chunk of a running clip -> (the map of this chunk, the states after it)
    state_shapes(video_shape)       name -> shape of each entry of its states, without B; {} if it remembers nothing
    chunks(video)                   a running clip's next frames, cut into chunks that `call` can take
    arrived(states, steps)          which clips get a map from the chunk of `steps` frames that follows these states,
                                    bool [B]; None: all. The others keep their logits: ResNet50 pools frames in pairs

The places that have to know a new one by name, or take every other one than simple_c2d for a ResNet, are listed in
CONTRIBUTING.md, 'A new backbone'.
"""
