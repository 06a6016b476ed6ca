import CoreML
import XCTest

@testable import GoldenCheck

final class GoldenTests: XCTestCase {
    /// The model and the bundle that were put into Resources, on every kind of compute unit.
    func testTheModelGivesWhatTheBundleHolds() async throws {
        let resources = Bundle.module.resourceURL!.appendingPathComponent("Resources")
        let model = resources.appendingPathComponent("model.mlpackage")
        guard FileManager.default.fileExists(atPath: model.path) else {
            throw XCTSkip("put model.mlpackage and golden/ into Tests/GoldenCheckTests/Resources")
        }
        for units in [MLComputeUnits.cpuOnly, .cpuAndGPU, .cpuAndNeuralEngine] {
            let outputs = FileManager.default.temporaryDirectory
                .appendingPathComponent("outputs-\(units.rawValue)")
            let verdict = try await check(
                model: model, golden: resources.appendingPathComponent("golden"), units: units,
                outputs: outputs)
            print(try verdict.json())
            try attach(outputs)
            XCTAssertTrue(verdict.passed, "compute units \(units.rawValue)")
        }
    }

    /// Puts the files of a folder into the test report, from where Xcode exports them.
    private func attach(_ folder: URL) throws {
        for name in try FileManager.default.contentsOfDirectory(atPath: folder.path) {
            let attachment = XCTAttachment(contentsOfFile: folder.appendingPathComponent(name))
            attachment.name = "\(folder.lastPathComponent)-\(name)"
            attachment.lifetime = .keepAlways
            add(attachment)
        }
    }

    func testErrorsAreThoseOfTheReport() throws {
        let errors = try Errors([1, 2, 3.5], [1, 2, 3])
        XCTAssertEqual(errors.maxAbs, 0.5)
        XCTAssertEqual(errors.relative, 0.5 / 14.0.squareRoot(), accuracy: 1e-12)
        XCTAssertEqual(errors.nonfinite, 0)
    }
}
