// The suite in onnxruntime-node: node node.mjs SUITE

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import ort from "onnxruntime-node";
import { runSuite } from "./suite.mjs";

async function read(name) {
  const file = await readFile(join(process.argv[2], name));
  return file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength);
}

await runSuite(ort, ort.env.versions.node, read, (line) => console.log(JSON.stringify(line)));
