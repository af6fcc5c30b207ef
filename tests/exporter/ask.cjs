// Asks standalone files with ONNX Runtime for Node.js: questions as JSON from stdin, answers as JSON to stdout.
const fs = require("node:fs");
const ort = require("onnxruntime-node");

const ARRAYS = {
  float32: (data) => Float32Array.from(data),
  int64: (data) => BigInt64Array.from(data, BigInt),
  uint8: (data) => Uint8Array.from(data),
};

async function ask(question) {
  const session = await ort.InferenceSession.create(question.file);
  const feeds = Object.fromEntries(
    question.inputs.map(({ name, type, shape, data }) => [name, new ort.Tensor(type, ARRAYS[type](data), shape)]),
  );
  const outputs = await session.run(feeds);
  return Object.fromEntries(
    Object.entries(outputs).map(([name, value]) => [name, { shape: value.dims, data: Array.from(value.data) }]),
  );
}

async function main() {
  const answers = [];
  for (const question of JSON.parse(fs.readFileSync(0, "utf8"))) answers.push(await ask(question));
  process.stdout.write(JSON.stringify(answers));
}

main();
