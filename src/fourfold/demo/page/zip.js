// An archive of some files, stored without compression (PKWARE APPNOTE 4.3).

const TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc32(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

const MIDNIGHT = 0x21; // 1980-01-01, the first date of the format: equal files give equal archives
const UTF8 = 0x800;

function record(signature, shorts, longs, tail) {
  const bytes = new Uint8Array(4 + shorts.length * 2 + longs.length * 4 + tail.length * 2);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, signature, true);
  shorts.forEach((value, index) => view.setUint16(4 + 2 * index, value, true));
  longs.forEach((value, index) => view.setUint32(4 + 2 * shorts.length + 4 * index, value, true));
  tail.forEach((value, index) => view.setUint16(4 + 2 * shorts.length + 4 * longs.length + 2 * index, value, true));
  return bytes;
}

// files: [name, Uint8Array] → Blob
export function zip(files) {
  const [parts, directory] = [[], []];
  let offset = 0;
  for (const [name, bytes] of files) {
    const encoded = new TextEncoder().encode(name);
    const sizes = [crc32(bytes), bytes.length, bytes.length];
    const head = record(0x04034b50, [20, UTF8, 0, 0, MIDNIGHT], sizes, [encoded.length, 0]);
    directory.push(record(0x02014b50, [20, 20, UTF8, 0, 0, MIDNIGHT], sizes, [encoded.length, 0, 0, 0, 0, 0, 0]), new Uint8Array(new Uint32Array([offset]).buffer), encoded);
    parts.push(head, encoded, bytes);
    offset += head.length + encoded.length + bytes.length;
  }
  const size = directory.reduce((total, part) => total + part.length, 0);
  const end = record(0x06054b50, [0, 0, files.length, files.length], [size, offset], [0]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
