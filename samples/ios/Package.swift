// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "GoldenCheck",
    platforms: [.macOS(.v13), .iOS(.v16)],
    products: [
        .library(name: "GoldenCheck", targets: ["GoldenCheck"]),
        .executable(name: "golden-check", targets: ["golden-check"]),
    ],
    targets: [
        .target(name: "GoldenCheck"),
        .executableTarget(name: "golden-check", dependencies: ["GoldenCheck"]),
        .testTarget(
            name: "GoldenCheckTests",
            dependencies: ["GoldenCheck"],
            resources: [.copy("Resources")]
        ),
    ]
)
