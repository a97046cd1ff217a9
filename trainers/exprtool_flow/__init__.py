"""Trains the flow network: from the pairs of `exprtool data synth` to one ONNX file that `exprtool_default` runs.

`shards` reads the pairs, `augment` varies them, `networks` is the network, `compose` makes its answer a picture,
`losses` says how wrong that is, `loop` trains, `export` writes the file.
"""
