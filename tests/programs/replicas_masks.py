"""No two layers or replicas draw the same mask."""

import tensorflow as tf

from layers import Dropout

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    layers = [Dropout(0.5, seed=seed) for seed in (0, 1, 2)]
    for layer in layers:
        layer.build((8, 100))


def masks():
    return tf.stack([layer(tf.ones((8, 100)), training=True) for layer in layers])


draw = tf.function(lambda: strategy.run(masks).values)
drawn = [mask.numpy().tobytes() for _ in range(3) for replica in draw() for mask in replica]
assert len(drawn) == 18
assert len(set(drawn)) == 18, len(set(drawn))
assert [layer.key.numpy().tolist() for layer in layers] == [[0, 3], [1, 3], [2, 3]]
