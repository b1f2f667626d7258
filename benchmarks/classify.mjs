// The class of each image, a line each: node classify.mjs PACKAGE MODEL IMAGES HEIGHT WIDTH CHANNELS
// PACKAGE is onnxruntime-node or onnxruntime-web, MODEL a version's model.onnx, and IMAGES a file of their bytes.
import { readFileSync } from "node:fs";

const [name, model, file, ...shape] = process.argv.slice(2);
const ort = await import(name);
const session = await ort.InferenceSession.create(readFileSync(model));
const images = new Uint8Array(readFileSync(file));
const [height, width, channels] = shape.map(Number);
const size = height * width * channels;
const batch = 500;
for (let start = 0; start < images.length; start += batch * size) {
  const part = images.slice(start, start + batch * size);
  const tensor = new ort.Tensor("uint8", part, [part.length / size, height, width, channels]);
  const answer = await session.run({ images: tensor });
  console.log([...answer.class_id.data].join("\n"));
}
