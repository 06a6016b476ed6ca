import Foundation
import GoldenCheck

// golden-check MODEL.mlpackage GOLDEN_FOLDER [OUTPUT_FOLDER]: 0 passed, 1 failed, 2 bad input.
let arguments = CommandLine.arguments
guard (3...4).contains(arguments.count) else {
    let usage = "usage: golden-check MODEL.mlpackage GOLDEN_FOLDER [OUTPUT_FOLDER]\n"
    FileHandle.standardError.write(Data(usage.utf8))
    exit(2)
}
do {
    let verdict = try await check(
        model: URL(fileURLWithPath: arguments[1]), golden: URL(fileURLWithPath: arguments[2]),
        outputs: arguments.count == 4 ? URL(fileURLWithPath: arguments[3]) : nil)
    print(try verdict.json())
    exit(verdict.passed ? 0 : 1)
} catch {
    FileHandle.standardError.write(Data("\(error)\n".utf8))
    exit(2)
}
