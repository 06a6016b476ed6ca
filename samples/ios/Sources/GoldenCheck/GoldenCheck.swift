import CoreML
import Foundation

/// What was asked of one output, and what was found.
public struct Check: Encodable {
    public let name: String
    public let status: String
    public let reason: String
    public let errors: Errors
}

/// The verdict on one model.
public struct Verdict: Encodable {
    public let model: String
    public let runtime: String
    public let verdict: String
    public let checks: [Check]

    public var passed: Bool { verdict == "passed" }

    public func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        return String(decoding: try encoder.encode(self), as: UTF8.self)
    }
}

/// Runs a model on the inputs of a golden bundle and compares what it gives.
///
/// - Parameters:
///   - model: a `.mlpackage`, or a compiled `.mlmodelc`.
///   - relative: the limit of the relative error where the bundle sets none.
///   - outputs: a folder to be made with what the model gave, for `dkm-deploy compare`.
public func check(
    model: URL, golden: URL, units: MLComputeUnits = .all, relative: Double = 1e-2,
    outputs: URL? = nil
) async throws -> Verdict {
    let bundle = try GoldenBundle(folder: golden)
    let configuration = MLModelConfiguration()
    configuration.computeUnits = units
    let compiled = model.pathExtension == "mlmodelc" ? model : try await MLModel.compileModel(at: model)
    let loaded = try MLModel(contentsOf: compiled, configuration: configuration)
    let found = try run(loaded, bundle)
    let runtime = "Core ML, compute units \(units.rawValue)"
    if let outputs {
        let system = ProcessInfo.processInfo.operatingSystemVersionString
        try write(found, of: bundle, runtime: "\(runtime), \(system)", to: outputs)
    }
    let checks = try bundle.outputs.map { entry -> Check in
        guard let actual = found[entry.name] else {
            throw CheckError("the model has no output \(entry.name)")
        }
        let errors = try Errors(actual, bundle.values(entry))
        let failed = errors.misses(bundle.limits.of(entry.name, relative: relative))
        return Check(
            name: "parity of \(entry.name)",
            status: failed.isEmpty ? "passed" : "failed",
            reason: failed.isEmpty ? "relative error \(errors.relative)" : failed.joined(separator: "; "),
            errors: errors)
    }
    let passed = !checks.isEmpty && checks.allSatisfy { $0.status == "passed" }
    return Verdict(
        model: model.lastPathComponent, runtime: runtime,
        verdict: passed ? "passed" : "failed", checks: checks)
}

/// All outputs by name, the samples one after the other, as many at a time as the model takes.
private func run(_ model: MLModel, _ bundle: GoldenBundle) throws -> [String: [Double]] {
    let inputs = try bundle.inputs.map { ($0, try bundle.values($0)) }
    guard let samples = bundle.inputs.first?.shape.first else {
        throw CheckError("the bundle has no inputs")
    }
    var outputs: [String: [Double]] = [:]
    let batch = try batchSize(model, bundle.inputs)
    for start in stride(from: 0, to: samples, by: batch) {
        guard start + batch <= samples else {
            throw CheckError("the model takes \(batch) samples at a time, which does not divide \(samples)")
        }
        var features: [String: MLFeatureValue] = [:]
        for (entry, values) in inputs {
            let size = values.count / samples
            let part = Array(values[start * size ..< (start + batch) * size])
            features[entry.name] = try feature(part, [batch] + entry.shape.dropFirst(), entry.name, model)
        }
        let result = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: features))
        for name in result.featureNames {
            guard let array = result.featureValue(for: name)?.multiArrayValue else { continue }
            outputs[name, default: []] += MLShapedArray<Float>(converting: array).scalars.map(Double.init)
        }
    }
    return outputs
}

private func batchSize(_ model: MLModel, _ inputs: [TensorEntry]) throws -> Int {
    guard let entry = inputs.first,
        let constraint = model.modelDescription.inputDescriptionsByName[entry.name]?.multiArrayConstraint,
        let first = constraint.shape.first
    else { throw CheckError("the model takes no tensor \(inputs.first?.name ?? "at all")") }
    return first.intValue
}

private func feature(
    _ values: [Double], _ shape: [Int], _ name: String, _ model: MLModel
) throws -> MLFeatureValue {
    switch model.modelDescription.inputDescriptionsByName[name]?.multiArrayConstraint?.dataType {
    case .int32: return MLFeatureValue(shapedArray: MLShapedArray<Int32>(scalars: values.map { Int32($0) }, shape: shape))
    case .some: return MLFeatureValue(shapedArray: MLShapedArray<Float>(scalars: values.map { Float($0) }, shape: shape))
    case .none: throw CheckError("the model has no tensor input \(name)")
    }
}
