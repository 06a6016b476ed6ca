import Foundation
import GoldenCheck

// golden-check MODEL.mlpackage GOLDEN_FOLDER: 0 passed, 1 missed, 2 wrong use or bad input.
let arguments = CommandLine.arguments
guard arguments.count == 3 else {
    FileHandle.standardError.write(Data("usage: golden-check MODEL.mlpackage GOLDEN_FOLDER\n".utf8))
    exit(2)
}
do {
    let verdict = try await check(
        model: URL(fileURLWithPath: arguments[1]), golden: URL(fileURLWithPath: arguments[2]))
    print(try verdict.json())
    exit(verdict.passed ? 0 : 1)
} catch {
    FileHandle.standardError.write(Data("\(error)\n".utf8))
    exit(2)
}
