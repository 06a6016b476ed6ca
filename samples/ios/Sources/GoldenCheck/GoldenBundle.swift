import CryptoKit
import Foundation

/// One tensor of a bundle: little-endian values in C order, with nothing around them.
public struct TensorEntry: Decodable {
    public let name: String
    public let dtype: String
    public let shape: [Int]
    public let raw: String
}

/// Limits of one output; nil is no limit.
public struct OutputLimits: Decodable {
    public var maxRelativeError: Double?
    public var maxElementError: Double?
    public var maxAbsError: Double?
    public var maxMeanError: Double?
    public var maxP999Error: Double?
    public var minSqnrDb: Double?
    public var minPsnrDb: Double?
    public var minCosine: Double?

    enum CodingKeys: String, CodingKey {
        case maxRelativeError = "max_relative_error"
        case maxElementError = "max_element_error"
        case maxAbsError = "max_abs_error"
        case maxMeanError = "max_mean_error"
        case maxP999Error = "max_p999_error"
        case minSqnrDb = "min_sqnr_db"
        case minPsnrDb = "min_psnr_db"
        case minCosine = "min_cosine"
    }
}

/// Limits of all outputs, and further ones of single outputs.
public struct Limits: Decodable {
    public var maxRelativeError: Double?
    public var maxElementError: Double?
    public var outputs: [String: OutputLimits]?

    enum CodingKeys: String, CodingKey {
        case maxRelativeError = "max_relative_error"
        case maxElementError = "max_element_error"
        case outputs
    }

    /// The limits of one output, defaults filled in as dkm-deploy does.
    func of(_ output: String, relative fallback: Double) -> OutputLimits {
        var own = outputs?[output] ?? OutputLimits()
        let relative = own.maxRelativeError ?? maxRelativeError ?? fallback
        own.maxRelativeError = relative
        own.maxElementError = own.maxElementError ?? maxElementError ?? 10 * relative
        return own
    }
}

/// A golden bundle that `dkm.write_golden` has written; its sums are verified when it is opened.
public struct GoldenBundle {
    struct Manifest: Decodable {
        let format: String
        let version: Int
        let inputs: [TensorEntry]
        let outputs: [TensorEntry]
        let limits: Limits
    }

    public let inputs: [TensorEntry]
    public let outputs: [TensorEntry]
    public let limits: Limits
    let folder: URL

    public init(folder: URL) throws {
        try GoldenBundle.verify(folder)
        let data = try Data(contentsOf: folder.appendingPathComponent("bundle.json"))
        let manifest = try JSONDecoder().decode(Manifest.self, from: data)
        guard manifest.format == "dkm-deploy golden bundle", manifest.version == 1 else {
            throw CheckError("\(folder.path): not a golden bundle of version 1")
        }
        self.folder = folder
        inputs = manifest.inputs
        outputs = manifest.outputs
        limits = manifest.limits
    }

    /// The values of a tensor.
    public func values(_ entry: TensorEntry) throws -> [Double] {
        let data = try Data(contentsOf: folder.appendingPathComponent(entry.raw))
        switch entry.dtype {
        case "float32": return read(data, UInt32.self) { Double(Float(bitPattern: $0)) }
        case "float64": return read(data, UInt64.self) { Double(bitPattern: $0) }
        case "int32": return read(data, UInt32.self) { Double(Int32(bitPattern: $0)) }
        case "int64": return read(data, UInt64.self) { Double(Int64(bitPattern: $0)) }
        case "uint8", "bool": return read(data, UInt8.self) { Double($0) }
        default: throw CheckError("\(entry.name): \(entry.dtype) is not read here")
        }
    }

    private func read<T: FixedWidthInteger>(
        _ data: Data, _: T.Type, _ convert: (T) -> Double
    ) -> [Double] {
        data.withUnsafeBytes { bytes in
            stride(from: 0, to: bytes.count, by: MemoryLayout<T>.size).map {
                convert(T(littleEndian: bytes.loadUnaligned(fromByteOffset: $0, as: T.self)))
            }
        }
    }

    private static func verify(_ folder: URL) throws {
        let sums = folder.appendingPathComponent("SHA256SUMS")
        for line in try String(contentsOf: sums, encoding: .utf8).split(separator: "\n") {
            let parts = line.components(separatedBy: "  ")
            guard parts.count == 2, !parts[1].contains("..") else {
                throw CheckError("\(sums.path): not a list of sums: \(line)")
            }
            let data = try Data(contentsOf: folder.appendingPathComponent(parts[1]))
            let found = SHA256.hash(data: data).map { String(format: "%02x", $0) }.joined()
            guard found == parts[0] else {
                throw CheckError("\(parts[1]) has changed since the bundle was written")
            }
        }
    }
}

/// What is wrong with the input, in one line.
public struct CheckError: Error, CustomStringConvertible {
    public let description: String

    init(_ description: String) {
        self.description = description
    }
}
