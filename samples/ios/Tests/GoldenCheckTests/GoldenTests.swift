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
            let verdict = try await check(
                model: model, golden: resources.appendingPathComponent("golden"), units: units)
            print(try verdict.json())
            XCTAssertTrue(verdict.passed, "compute units \(units.rawValue)")
        }
    }

    func testErrorsAreThoseOfTheReport() throws {
        let errors = try Errors([1, 2, 3.5], [1, 2, 3])
        XCTAssertEqual(errors.maxAbs, 0.5)
        XCTAssertEqual(errors.relative, 0.5 / 14.0.squareRoot(), accuracy: 1e-12)
        XCTAssertEqual(errors.nonfinite, 0)
    }
}
