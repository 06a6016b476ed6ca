import Foundation

/// How far an output is from what it must be: the numbers of dkm-deploy's report.
public struct Errors: Encodable {
    public let maxAbs: Double
    public let meanAbs: Double
    public let p999Abs: Double
    public let relative: Double
    public let element: Double
    public let sqnrDb: Double?
    public let psnrDb: Double?
    public let cosine: Double
    public let nonfinite: Int

    enum CodingKeys: String, CodingKey {
        case maxAbs = "max_abs"
        case meanAbs = "mean_abs"
        case p999Abs = "p999_abs"
        case relative, element
        case sqnrDb = "sqnr_db"
        case psnrDb = "psnr_db"
        case cosine, nonfinite
    }

    public init(_ actual: [Double], _ expected: [Double]) throws {
        guard actual.count == expected.count, !expected.isEmpty else {
            throw CheckError("\(actual.count) values in place of \(expected.count)")
        }
        let pairs = zip(actual, expected)
        nonfinite = pairs.filter { a, e in
            !(a.isFinite && e.isFinite) && !(a.isNaN && e.isNaN) && a != e
        }.count
        let finite = pairs.filter { $0.isFinite && $1.isFinite }
        guard !finite.isEmpty else { throw CheckError("no value is finite") }
        let gaps = finite.map { abs($0 - $1) }.sorted()
        let norm = { (values: [Double]) in values.reduce(0) { $0 + $1 * $1 }.squareRoot() }
        let (gap, size) = (norm(gaps), norm(finite.map { $1 }))
        let rms = size / Double(finite.count).squareRoot()
        let peak = finite.map { abs($1) }.max()!
        maxAbs = gaps.last!
        meanAbs = gaps.reduce(0, +) / Double(gaps.count)
        p999Abs = quantile(gaps, 0.999)
        relative = gap == 0 ? 0 : gap / size
        element = rms == 0 ? relative : finite.map { abs($0 - $1) / max(abs($1), rms) }.max()!
        sqnrDb = gap == 0 ? nil : -20 * log10(relative)
        psnrDb = gap == 0 ? nil : 20 * log10(peak / (gap / Double(gaps.count).squareRoot()))
        let product = finite.reduce(0) { $0 + $1.0 * $1.1 }
        let norms = norm(finite.map { $0.0 }) * size
        cosine = norms == 0 ? (gap == 0 ? 1 : 0) : product / norms
    }

    /// One line for each limit that fails.
    func misses(_ limits: OutputLimits) -> [String] {
        var lines: [String] = nonfinite == 0 ? [] : ["\(nonfinite) values are NaN or infinite"]
        func most(_ what: String, _ value: Double, _ limit: Double?) {
            if let limit, !(value <= limit) { lines.append("\(what) \(value), at most \(limit)") }
        }
        func least(_ what: String, _ value: Double?, _ limit: Double?) {
            if let limit, let value, !(value >= limit) {
                lines.append("\(what) \(value), at least \(limit)")
            }
        }
        most("relative error", relative, limits.maxRelativeError)
        most("element error", element, limits.maxElementError)
        most("absolute error", maxAbs, limits.maxAbsError)
        most("mean error", meanAbs, limits.maxMeanError)
        most("99.9th percentile of the error", p999Abs, limits.maxP999Error)
        least("SQNR in dB", sqnrDb, limits.minSqnrDb)
        least("PSNR in dB", psnrDb, limits.minPsnrDb)
        least("cosine", cosine, limits.minCosine)
        return lines
    }
}

/// The quantile of sorted values, between neighbours in proportion, as numpy has it.
private func quantile(_ sorted: [Double], _ share: Double) -> Double {
    let place = share * Double(sorted.count - 1)
    let below = sorted[Int(place.rounded(.down))]
    let above = sorted[Int(place.rounded(.up))]
    return below + (above - below) * (place - place.rounded(.down))
}
