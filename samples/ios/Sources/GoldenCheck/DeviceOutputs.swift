import CryptoKit
import Foundation

/// What `dkm-deploy compare GOLDEN FOLDER` reads: the outputs of a device as raw floats.
struct DeviceOutputs: Encodable {
    struct Entry: Encodable {
        let name: String
        let dtype = "float32"
        let shape: [Int]
        let raw: String

        enum CodingKeys: CodingKey { case name, dtype, shape, raw }
    }

    let format = "dkm-deploy device outputs"
    let version = 1
    let golden: String
    let runtime: String
    let outputs: [Entry]

    enum CodingKeys: CodingKey { case format, version, golden, runtime, outputs }
}

/// Writes the outputs that a model gave for the inputs of a bundle.
///
/// - Parameters:
///   - found: values by output, the samples one after the other.
///   - folder: is made; what it holds of an earlier run is replaced.
func write(_ found: [String: [Double]], of bundle: GoldenBundle, runtime: String, to folder: URL) throws {
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    var entries: [DeviceOutputs.Entry] = []
    for (place, entry) in bundle.outputs.enumerated() {
        guard let values = found[entry.name] else { continue }
        let name = "outputs.\(place).bin"
        var data = Data(capacity: 4 * values.count)
        for value in values {
            withUnsafeBytes(of: Float(value).bitPattern.littleEndian) { data.append(contentsOf: $0) }
        }
        try data.write(to: folder.appendingPathComponent(name))
        let fits = entry.shape.reduce(1, *) == values.count
        let shape = fits ? entry.shape : [values.count]
        entries.append(DeviceOutputs.Entry(name: entry.name, shape: shape, raw: name))
    }
    let sums = try Data(contentsOf: bundle.folder.appendingPathComponent("SHA256SUMS"))
    let golden = SHA256.hash(data: sums).map { String(format: "%02x", $0) }.joined()
    let manifest = DeviceOutputs(golden: golden, runtime: runtime, outputs: entries)
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    try encoder.encode(manifest).write(to: folder.appendingPathComponent("outputs.json"))
}
