internal import CPlatform
internal import Glibc
internal import Logging
internal import NIOCore
internal import StorageEngine
internal import Synchronization

/// Extents of up to `EmbeddedExtentWriter.segmentLimit` bytes, one after the other in files of about 64 MiB. A record
/// is written whole when its extent is finished, so a segment never holds an abandoned one; a thread of its own writes
/// all that wait and calls fdatasync once.
final class SegmentStore: @unchecked Sendable {
    // @unchecked: `active` belongs to the thread after `open`.

    struct Job: Sendable {
        let pieces: [ByteBuffer]
        let byteCount: Int
        let answer: @Sendable (Result<ExtentPlace, StorageEngineError>) -> Void
    }

    private struct Segment {
        /// Where the next record goes, or would: everything before is on the medium.
        var end: Int
        /// Records not deleted, damaged ones included; nil until somebody counted.
        var live: Int?
        var isActive = false
    }

    /// A segment that reached this takes no more records.
    private let segmentBytes: Int
    private static let batchLimit = 128

    private let directory: String
    private let disk: Disk
    private let descriptors: Descriptors
    private let openCount: UInt32
    private let logger: Logger
    private let segments = Mutex<[UInt64: Segment]>([:])
    private let thread = Mutex<BatchThread<Job>?>(nil)
    private var active: (id: UInt64, file: OpenFile)?
    private var nextNumber: UInt64 = 1

    init(directory: String, disk: Disk, descriptors: Descriptors, openCount: UInt32, segmentBytes: Int, logger: Logger)
    {
        self.directory = directory
        self.disk = disk
        self.descriptors = descriptors
        self.openCount = openCount
        self.segmentBytes = segmentBytes
        self.logger = logger
    }

    private func path(_ segment: UInt64) -> String { directory + "/" + hexadecimal(segment) }

    // MARK: Life

    /// Finds the segments, and removes from the newest what a crash left unfinished.
    func open() throws(StorageEngineError) {
        let numbers = try directoryEntries(directory).compactMap { UInt64($0, radix: 16) }
        for number in numbers {
            var status = stat()
            guard stat(path(number), &status) == 0 else { continue }
            segments.withLock { $0[number] = Segment(end: Int(status.st_size), live: nil) }
        }
        // Metadata restored from an older copy counts its starts from an older number: this one's may be taken.
        let taken = numbers.filter { $0 >> 32 == UInt64(openCount) }.max() ?? 0
        nextNumber = (taken & UInt64(UInt32.max)) + 1
        if let newest = numbers.max() { try recover(newest) }
        let made = BatchThread<Job>(name: "coffer-extents", batchLimit: Self.batchLimit) { [self] in process($0) }
        made.start()
        thread.withLock { $0 = made }
    }

    func close() {
        let ending = thread.withLock { thread in
            defer { thread = nil }
            return thread
        }
        ending?.close()
    }

    func submit(_ job: Job) {
        let isTaken = thread.withLock { $0 }?.submit(job) ?? false
        if !isTaken { job.answer(.failure(StorageEngineError(.unavailable, "The storage engine is closed."))) }
    }

    /// Only the newest segment can have an unfinished tail that matters: a segment is left when all in it is durable,
    /// or when the disk failed; then its tail was never acknowledged, and the sweeper finds it.
    ///
    /// A record that is not whole may be one that a crash cut short, or one that was acknowledged and has been damaged
    /// since. Nobody can tell, so it stays. A segment that cannot be read in full now is left as it is and takes no
    /// more records: it may be readable at the next start.
    private func recover(_ number: UInt64) throws(StorageEngineError) {
        let file = try descriptors.file(path(number))
        let found: (end: Int, live: Int, size: Int)
        do throws(StorageEngineError) { found = try inspect(number, file) } catch {
            logger.error("the newest segment cannot be read in full", metadata: ["error": "\(error)"])
            return
        }
        if found.end < found.size {
            try StorageEngineError.check(
                disk.truncate(file.descriptor, to: found.end), "truncate a segment's unfinished tail")
        }
        if found.live == 0 {
            segments.withLock { $0[number] = nil }
            try StorageEngineError.check(disk.unlink(path(number)), "remove an empty segment")
            descriptors.forget(path(number))
        } else {
            segments.withLock { $0[number] = Segment(end: found.end, live: found.live, isActive: true) }
            active = (number, file)
        }
    }

    /// Where the last record ends, and how many are not deleted; marks those that are not whole. Throws when something
    /// cannot be read.
    private func inspect(
        _ number: UInt64, _ file: OpenFile
    ) throws(StorageEngineError) -> (end: Int, live: Int, size: Int) {
        guard let size = Disk.size(file.descriptor) else {
            throw StorageEngineError(errno: errno, "ask for a segment's size")
        }
        var end = 0
        var live = 0
        var walk = SegmentWalk(file: file, segment: number, end: size)
        while let record = walk.next() {
            if record.state == .live, try !isWhole(record, file) { try mark(record, .unfinished, file) }
            if record.state != .dead { live += 1 }
            end = record.end
        }
        try StorageEngineError.check(walk.failure, "read a segment")
        return (end, live, size)
    }

    private func isWhole(_ record: SegmentRecord, _ file: OpenFile) throws(StorageEngineError) -> Bool {
        guard let buffer = try readExactly(file, range: record.dataOffset, count: record.byteCount) else {
            return false
        }
        return buffer.withUnsafeReadableBytes { Checksum.of($0) } == record.checksum
    }

    // MARK: Writing, on the thread

    private func process(_ jobs: [Job]) {
        var start = jobs.startIndex
        while start < jobs.endIndex {
            // What goes into one segment is one write and one fsync.
            var end = start
            var byteCount = 0
            repeat {
                byteCount += SegmentRecord.end(offset: 0, byteCount: jobs[end].byteCount)
                end += 1
            } while end < jobs.endIndex && byteCount < segmentBytes / 4
            let group = jobs[start..<end]
            do throws(StorageEngineError) {
                for (job, place) in zip(group, try append(group)) { job.answer(.success(place)) }
            } catch {
                for job in group { job.answer(.failure(error)) }
            }
            start = end
        }
    }

    private func append(_ jobs: ArraySlice<Job>) throws(StorageEngineError) -> [ExtentPlace] {
        let (id, file) = try roomySegment()
        let start = segments.withLock { $0[id]!.end }
        var offset = start
        var places: [ExtentPlace] = []
        do throws(StorageEngineError) {
            for job in jobs {
                let record = SegmentRecord(
                    openCount: openCount, segment: id, offset: offset, byteCount: job.byteCount,
                    checksum: checksum(job.pieces))
                try write(record, job.pieces, file)
                places.append(.record(segment: id, offset: offset, byteCount: job.byteCount))
                offset = record.end
            }
            try StorageEngineError.check(disk.sync(file.descriptor), "make an extent durable")
        } catch {
            // Nothing of the batch stays. A segment that cannot be put right is left behind; its tail was promised to
            // nobody, and the sweeper of a later start finds it.
            if disk.truncate(file.descriptor, to: start) != 0 || error.code != .full { leaveActive() }
            throw error
        }
        segments.withLock { segments in
            segments[id]!.end = offset
            segments[id]!.live! += places.count
        }
        return places
    }

    private func checksum(_ pieces: [ByteBuffer]) -> UInt32 {
        var sum = Checksum()
        for piece in pieces { piece.withUnsafeReadableBytes { sum.update($0) } }
        return sum.value
    }

    private func write(_ record: SegmentRecord, _ pieces: [ByteBuffer], _ file: OpenFile) throws(StorageEngineError) {
        var code = withUnsafeTemporaryAllocation(byteCount: SegmentRecord.headerBytes, alignment: 8) { header in
            record.write(to: header)
            return disk.write(file.descriptor, UnsafeRawBufferPointer(header), at: record.offset)
        }
        var offset = record.dataOffset
        for piece in pieces where code == 0 {
            code = piece.withUnsafeReadableBytes { disk.write(file.descriptor, $0, at: offset) }
            offset += piece.readableBytes
        }
        try StorageEngineError.check(code, "write an extent")
    }

    /// The segment to append to; a new one when the last is full.
    private func roomySegment() throws(StorageEngineError) -> (UInt64, OpenFile) {
        if let active {
            if segments.withLock({ $0[active.id]!.end }) < segmentBytes { return active }
            leaveActive()
        }
        let id = UInt64(openCount) << 32 | nextNumber
        nextNumber += 1
        let descriptor = Glibc.open(path(id), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw StorageEngineError(errno: errno, "create a segment") }
        let file = OpenFile(descriptor: descriptor)
        try StorageEngineError.check(disk.syncDirectory(directory), "create a segment")
        segments.withLock { $0[id] = Segment(end: 0, live: 0, isActive: true) }
        active = (id, file)
        return (id, file)
    }

    private func leaveActive() {
        guard let (id, _) = active else { return }
        active = nil
        let isEmpty = segments.withLock { segments in
            segments[id]!.isActive = false
            return segments[id]!.live == 0
        }
        if isEmpty { remove(id) }
    }

    // MARK: Reading

    func read(
        segment: UInt64, offset: Int, byteCount: Int, range: Range<Int>
    ) throws(StorageEngineError) -> ByteBuffer {
        guard range.lowerBound >= 0, range.upperBound <= byteCount else {
            throw StorageEngineError(.corrupt, "The extent ends before the range that was asked for.")
        }
        let file = try descriptors.file(path(segment))
        let buffer = try readExactly(
            file, range: offset + SegmentRecord.headerBytes + range.lowerBound, count: range.count)
        // The header after the bytes: a record that lives now had not been punched out while they were read.
        guard let record = SegmentRecord.read(file.descriptor, segment: segment, offset: offset),
            record.byteCount == byteCount
        else {
            throw StorageEngineError(.corrupt, "A segment does not hold the extent that its location names.")
        }
        guard record.state != .dead else { throw ExtentPlace.unknown }
        guard let buffer else { throw StorageEngineError(.corrupt, "A segment ends within an extent.") }
        return buffer
    }

    func list(after: (segment: UInt64, offset: Int)?, limit: Int) throws(StorageEngineError) -> [ExtentListing] {
        let known = segments.withLock { segments in segments.mapValues(\.end) }
        var found: [ExtentListing] = []
        for (number, end) in known.sorted(by: { $0.key < $1.key }) where found.count < limit {
            if let after, number < after.segment { continue }
            let file: OpenFile
            do throws(StorageEngineError) { file = try descriptors.file(path(number)) } catch
                where error.code == .notFound
            { continue }
            let first = after.map { $0.segment == number ? $0.offset : -1 } ?? -1
            // A caller's offset is a record's own, so the walk starts there instead of at the beginning.
            for record in SegmentWalk(file: file, segment: number, end: end, from: max(first, 0)) {
                guard record.offset > first, record.state == .live else { continue }
                let place = ExtentPlace.record(segment: number, offset: record.offset, byteCount: record.byteCount)
                found.append(
                    ExtentListing(
                        location: place.location, byteCount: record.byteCount, isRecent: record.openCount == openCount))
                if found.count == limit { break }
            }
        }
        return found
    }

    // MARK: Deleting

    func delete(segment: UInt64, offset: Int, byteCount: Int) throws(StorageEngineError) {
        let file: OpenFile
        do throws(StorageEngineError) { file = try descriptors.file(path(segment)) } catch
            where error.code == .notFound
        { return }
        let isEmpty = try deleteCounted(segment: segment, offset: offset, byteCount: byteCount, file)
        if isEmpty { remove(segment) }
    }

    private func deleteCounted(
        segment: UInt64, offset: Int, byteCount: Int, _ file: OpenFile
    ) throws(StorageEngineError) -> Bool {
        // Under the lock, so that a record is counted out once; the calls inside only touch the page cache.
        let result: Result<Bool, StorageEngineError> = segments.withLock { segments in
            Result { () throws(StorageEngineError) -> Bool in
                guard var known = segments[segment], offset < known.end,
                    let record = SegmentRecord.read(file.descriptor, segment: segment, offset: offset),
                    record.state != .dead,
                    record.byteCount == byteCount
                else { return false }
                if known.live == nil {
                    known.live = Self.count(SegmentWalk(file: file, segment: segment, end: known.end))
                }
                try mark(record, .dead, file)
                known.live = known.live.map { $0 - 1 }
                segments[segment] = known
                return known.live == 0 && !known.isActive
            }
        }
        return try result.get()
    }

    /// The records that are not deleted; nil when not every header can be read, for then the segment must stay.
    private static func count(_ walk: SegmentWalk) -> Int? {
        var walk = walk
        var count = 0
        while let record = walk.next() { if record.state != .dead { count += 1 } }
        return walk.failure == 0 ? count : nil
    }

    /// The record stays, so that a walk finds the next; a dead one's bytes go back to the file system.
    private func mark(_ record: SegmentRecord, _ state: SegmentRecord.State, _ file: OpenFile)
        throws(StorageEngineError)
    {
        let code = withUnsafeBytes(of: state.rawValue) {
            disk.write(file.descriptor, $0, at: record.offset + SegmentRecord.stateOffset)
        }
        try StorageEngineError.check(code, "mark an extent")
        guard state == .dead else { return }
        let block = 4096
        let start = (record.dataOffset + block - 1) / block * block
        let end = record.end / block * block
        // Not every file system can; then the space comes back with the whole segment.
        if end > start { _ = coffer_punch_hole(file.descriptor, Int64(start), Int64(end - start)) }
    }

    private func remove(_ segment: UInt64) {
        segments.withLock { $0[segment] = nil }
        let code = disk.unlink(path(segment))
        if code != 0 { logger.warning("an empty segment could not be removed", metadata: ["errno": "\(code)"]) }
        descriptors.forget(path(segment))
    }
}

/// The records of a segment in order. Where a header is damaged it goes on with the next whole one, so damage hides one
/// extent, not all behind it.
struct SegmentWalk: Sequence, IteratorProtocol {
    private let file: OpenFile
    private let segment: UInt64
    private let end: Int
    private var offset: Int
    /// The errno of the first header that could not be read; the walk goes on behind it.
    private(set) var failure: Int32 = 0

    init(file: OpenFile, segment: UInt64, end: Int, from offset: Int = 0) {
        self.file = file
        self.segment = segment
        self.end = end
        self.offset = offset
    }

    mutating func next() -> SegmentRecord? {
        while offset + SegmentRecord.headerBytes <= end {
            var code: Int32 = 0
            if let record = SegmentRecord.read(file.descriptor, segment: segment, offset: offset, failure: &code),
                record.dataOffset + record.byteCount <= end
            {
                offset = record.end
                return record
            }
            if failure == 0 { failure = code }
            offset += SegmentRecord.alignment
        }
        return nil
    }
}

/// `count` bytes from `offset`; nil when the file ends before.
func readExactly(_ file: OpenFile, range offset: Int, count: Int) throws(StorageEngineError) -> ByteBuffer? {
    var buffer = ByteBufferAllocator().buffer(capacity: count)
    var failure: Int32 = 0
    let got = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: count) { bytes in
        let space = UnsafeMutableRawBufferPointer(rebasing: bytes[..<count])
        let got = Disk.read(file.descriptor, into: space, at: offset)
        if got < 0 { failure = Int32(-got) }
        return Swift.max(got, 0)
    }
    try StorageEngineError.check(failure, "read an extent")
    return got == count ? buffer : nil
}

/// The names in a directory, without `.` and `..`; none when it does not exist.
func directoryEntries(_ path: String) throws(StorageEngineError) -> [String] {
    guard let directory = opendir(path) else {
        if errno == ENOENT { return [] }
        throw StorageEngineError(errno: errno, "list a directory")
    }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        let name = withUnsafeBytes(of: &entry.pointee.d_name) {
            String(cString: $0.bindMemory(to: CChar.self).baseAddress!)
        }
        if name != ".", name != ".." { names.append(name) }
    }
    return names
}
