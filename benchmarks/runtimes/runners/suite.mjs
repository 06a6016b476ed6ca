// What Node and the browser share: run every model of the suite and report a line for each.

const ARRAYS = { float32: Float32Array, int64: BigInt64Array };
const LEVELS = { off: "disabled", on: "all" };

// ort: the package's module; read(name): a file of the suite as an ArrayBuffer; report(line).
export async function runSuite(ort, version, read, report) {
  const { models } = JSON.parse(new TextDecoder().decode(await read("manifest.json")));
  const data = await read("tensors.bin");
  await report({ version, foldings: Object.keys(LEVELS) });
  for (const model of models) {
    const bytes = new Uint8Array(await read(`${model.name}.onnx`));
    for (const folding of Object.keys(LEVELS)) {
      const error = await failure(ort, data, model, bytes, LEVELS[folding]);
      await report({ model: model.name, folding, error });
    }
  }
}

async function failure(ort, data, model, bytes, graphOptimizationLevel) {
  try {
    const options = { graphOptimizationLevel, intraOpNumThreads: 1, logSeverityLevel: 4 };
    const session = await ort.InferenceSession.create(bytes, options);
    const { dtype, shape } = model.input;
    const x = new ort.Tensor(dtype, array(data, model.input), shape);
    const outputs = await session.run({ x });
    await session.release();
    for (const output of model.outputs) {
      const wrong = difference(outputs[output.name], array(data, output), output);
      if (wrong) return wrong;
    }
    return null;
  } catch (error) {
    // Whatever the runtime throws is the result.
    return String(error).split(/\s+/).join(" ").slice(0, 300);
  }
}

function array(data, { dtype, shape, offset }) {
  return new ARRAYS[dtype](data, offset, shape.reduce((a, b) => a * b, 1));
}

function difference(found, expected, { name, shape, tolerance }) {
  if (String(found.dims) !== String(shape)) {
    return `${name} has shape ${found.dims}, expected ${shape}`;
  }
  const values = found.data;
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const wanted = new Uint32Array(expected.buffer, expected.byteOffset, expected.length);
  // Written so that NaN is wrong.
  const right = tolerance
    ? (i) => Math.abs(values[i] - expected[i]) <= tolerance
    : (i) => bits[i] === wanted[i];
  const wrong = [...expected.keys()].filter((i) => !right(i));
  if (!wrong.length) return null;
  const first = wrong[0];
  return (
    `${name}[${first}] is ${values[first]}, expected ${expected[first]}; ` +
    `${wrong.length} of ${expected.length} differ`
  );
}
