import { describe, expect, it } from 'vitest'
import { bitsPerElement, DTYPES } from './dtype.ts'
import { parseHeader, parseHeaderLength } from './header.ts'

const encoder = new TextEncoder()

function parse(json: string | object, dataBytes: number, file?: string) {
  const bytes = encoder.encode(typeof json === 'string' ? json : JSON.stringify(json))
  return parseHeader(bytes, 8 + bytes.length + dataBytes, file)
}

function entry(dtype: unknown, shape: unknown, offsets: unknown): object {
  return { dtype, shape, data_offsets: offsets }
}

function refusal(code: string, tensor?: string) {
  return expect.objectContaining({ name: 'SafetensorsError', code, tensor })
}

describe('parseHeader', () => {
  it('gives absolute offsets in the order of the file', () => {
    const json = JSON.stringify({
      late: entry('U8', [2], [4, 6]),
      empty: entry('F32', [0, 3], [4, 4]),
      early: entry('F32', [], [0, 4]),
    })
    const start = 8 + json.length
    const { tensors } = parse(json, 6, 'model')
    expect([...tensors.values()]).toEqual([
      { name: 'early', dtype: 'F32', shape: [], begin: start, end: start + 4, file: 'model' },
      {
        name: 'empty',
        dtype: 'F32',
        shape: [0, 3],
        begin: start + 4,
        end: start + 4,
        file: 'model',
      },
      { name: 'late', dtype: 'U8', shape: [2], begin: start + 4, end: start + 6, file: 'model' },
    ])
  })

  it('reads metadata, in order', () => {
    const { metadata, tensors } = parse('{"__metadata__":{"2":"b","1":"a","__proto__":"c"}}', 0)
    expect([...metadata]).toEqual([
      ['2', 'b'],
      ['1', 'a'],
      ['__proto__', 'c'],
    ])
    expect(tensors.size).toBe(0)
  })

  it('accepts an empty header, padding, null metadata and keys it does not know', () => {
    expect(parse('{}', 0).tensors.size).toBe(0)
    expect(parse('{}      \n', 0).tensors.size).toBe(0)
    expect(parse('{"__metadata__":null}', 0).metadata.size).toBe(0)
    const extra = { a: { ...entry('U8', [1], [0, 1]), extra: { deep: [1, null, 'x'] } } }
    expect(parse(extra, 1).tensors.get('a')?.shape).toEqual([1])
  })

  it.each(DTYPES)('knows %s', (dtype) => {
    const bytes = bitsPerElement(dtype)
    const { tensors } = parse({ a: entry(dtype, [2, 4], [0, bytes]) }, bytes)
    expect(tensors.get('a')).toMatchObject({ dtype, shape: [2, 4] })
  })

  it('keeps the names of Object.prototype apart', () => {
    const json = `{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"constructor":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`
    const { tensors } = parse(json, 2)
    expect([...tensors.keys()]).toEqual(['__proto__', 'constructor'])
    expect(({} as { dtype?: unknown }).dtype).toBeUndefined()
    expect(() =>
      parse('{"a":{"__proto__":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}}', 1),
    ).toThrow(refusal('bad-entry', 'a'))
  })

  it('refuses a header that does not begin with `{`', () => {
    for (const json of ['', ' {}', '[]', '\uFEFF{}', '"a"', '\n{}']) {
      expect(() => parse(json, 0)).toThrow(refusal('header-start'))
    }
  })

  it('refuses what is not UTF-8', () => {
    const bytes = Uint8Array.of(0x7b, 0x22, 0xc3, 0x28, 0x22, 0x7d)
    expect(() => parseHeader(bytes, 14)).toThrow(refusal('header-utf8'))
    // An overlong form and an encoded surrogate are not UTF-8 either.
    expect(() => parseHeader(Uint8Array.of(0x7b, 0xc0, 0xaf), 11)).toThrow(refusal('header-utf8'))
    expect(() => parseHeader(Uint8Array.of(0x7b, 0xed, 0xa0, 0x80), 12)).toThrow(
      refusal('header-utf8'),
    )
  })

  it('refuses what is not JSON', () => {
    for (const json of ['{', '{}}', '{}\0', '{"a":', '{a:1}', '{}{}']) {
      expect(() => parse(json, 0)).toThrow(expect.objectContaining({ code: 'header-json' }))
    }
    expect(() => parse('{"a":{"dtype":}}', 0)).toThrow(refusal('header-json', 'a'))
    const deep = `{"a":{"x":${'['.repeat(200_000)}`
    expect(() => parse(deep, 0)).toThrow(refusal('header-json', 'a'))
  })

  it('refuses keys that come twice', () => {
    const one = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    expect(() => parse(`{"a":${one},"a":${one}}`, 1)).toThrow(refusal('duplicate-key', 'a'))
    expect(() => parse(`{"a":${one},"\\u0061":${one}}`, 1)).toThrow(refusal('duplicate-key', 'a'))
    expect(() =>
      parse('{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', 1),
    ).toThrow(refusal('duplicate-key', 'a'))
    expect(() => parse('{"__metadata__":{"k":"1","k":"2"}}', 0)).toThrow(refusal('duplicate-key'))
    expect(() => parse('{"__metadata__":{},"__metadata__":{}}', 0)).toThrow(
      refusal('duplicate-key'),
    )
  })

  it('refuses metadata that is not strings', () => {
    for (const bad of ['[]', '1', '"a"', 'true', '{"k":1}', '{"k":null}', '{"k":{"a":"b"}}']) {
      expect(() => parse(`{"__metadata__":${bad}}`, 0)).toThrow(refusal('bad-metadata'))
    }
  })

  it('refuses entries that are not entries', () => {
    for (const bad of [
      null,
      1,
      'a',
      [],
      ['U8', [1], [0, 1]],
      {},
      { dtype: 'U8', shape: [1] },
      { dtype: 'U8', data_offsets: [0, 1] },
      { shape: [1], data_offsets: [0, 1] },
      entry(8, [1], [0, 1]),
      entry(null, [1], [0, 1]),
    ]) {
      expect(() => parse({ a: bad }, 1)).toThrow(refusal('bad-entry', 'a'))
    }
  })

  it('refuses dtypes that the format lacks', () => {
    for (const dtype of ['u8', 'F8', 'U128', '', 'toString']) {
      expect(() => parse({ a: entry(dtype, [1], [0, 1]) }, 1)).toThrow(
        refusal('unknown-dtype', 'a'),
      )
    }
  })

  it('refuses shapes that are not lists of whole numbers', () => {
    for (const shape of [
      '1',
      '"1"',
      'null',
      '{}',
      '[-1]',
      '[1.5]',
      '[1.0]',
      '[1e0]',
      '[-0]',
      '["1"]',
      '[null]',
      '[[1]]',
    ]) {
      const json = `{"a":{"dtype":"U8","shape":${shape},"data_offsets":[0,1]}}`
      expect(() => parse(json, 1)).toThrow(refusal('bad-shape', 'a'))
    }
    const flat = Array.from({ length: 1025 }, () => 1)
    expect(() => parse({ a: entry('U8', flat, [0, 1]) }, 1)).toThrow(refusal('bad-shape', 'a'))
  })

  it('refuses shapes that overflow', () => {
    for (const shape of [
      '[9007199254740992]',
      '[4294967296,4294967296]',
      `[${'9'.repeat(1_000_000)}]`,
      '[1099511627776,1099511627776,0]',
    ]) {
      const json = `{"a":{"dtype":"U8","shape":${shape},"data_offsets":[0,1]}}`
      expect(() => parse(json, 1)).toThrow(refusal('shape-overflow', 'a'))
    }
  })

  it('refuses offsets that are not two whole numbers in order', () => {
    for (const offsets of [
      '[]',
      '[0]',
      '[0,1,1]',
      '[1,0]',
      '[-1,0]',
      '[0,1.0]',
      '[0,1e0]',
      '{}',
      'null',
      '["0",1]',
      '[0,18446744073709551616]',
    ]) {
      const json = `{"a":{"dtype":"U8","shape":[1],"data_offsets":${offsets}}}`
      expect(() => parse(json, 1)).toThrow(refusal('bad-offsets', 'a'))
    }
  })

  it('refuses ranges that do not match dtype and shape', () => {
    expect(() => parse({ a: entry('F32', [2], [0, 4]) }, 4)).toThrow(refusal('size-mismatch', 'a'))
    expect(() => parse({ a: entry('U8', [0], [0, 1]) }, 1)).toThrow(refusal('size-mismatch', 'a'))
    expect(() => parse({ a: entry('U8', [], [0, 0]) }, 0)).toThrow(refusal('size-mismatch', 'a'))
  })

  it('refuses sub-byte tensors that end inside a byte', () => {
    expect(() => parse({ a: entry('F4', [3], [0, 2]) }, 2)).toThrow(
      refusal('not-byte-aligned', 'a'),
    )
    expect(parse({ a: entry('F4', [4], [0, 2]) }, 2).tensors.size).toBe(1)
    expect(parse({ a: entry('F6_E3M2', [4], [0, 3]) }, 3).tensors.size).toBe(1)
  })

  it('refuses holes and overlaps, and names the later tensor', () => {
    const a = entry('U8', [4], [0, 4])
    expect(() => parse({ a, b: entry('U8', [1], [5, 6]) }, 6)).toThrow(refusal('hole', 'b'))
    expect(() => parse({ b: entry('U8', [1], [1, 2]) }, 2)).toThrow(refusal('hole', 'b'))
    expect(() => parse({ a, b: entry('U8', [4], [2, 6]) }, 6)).toThrow(refusal('overlap', 'b'))
    expect(() => parse({ a, b: a }, 4)).toThrow(refusal('overlap', 'b'))
    expect(() => parse({ a, e: entry('U8', [0], [2, 2]) }, 4)).toThrow(refusal('overlap', 'e'))
    expect(() => parse({ a, e: entry('U8', [0], [5, 5]) }, 5)).toThrow(refusal('hole', 'e'))
  })

  it('refuses a file that is cut short or goes on', () => {
    const a = entry('U8', [4], [0, 4])
    const b = entry('U8', [4], [4, 8])
    expect(() => parse({ a, b }, 7, 'm')).toThrow(refusal('truncated', 'b'))
    expect(() => parse({ a, b }, 0)).toThrow(refusal('truncated', 'a'))
    expect(() => parse({ a, b }, 9, 'm')).toThrow('m: 1 bytes follow the last tensor')
    expect(() => parse({ a, b }, 9)).toThrow(refusal('trailing-bytes'))
    expect(() => parse('{}', 1)).toThrow(refusal('trailing-bytes'))
  })

  it('does not make the shape or the entry writable', () => {
    const info = parse({ a: entry('U8', [1], [0, 1]) }, 1).tensors.get('a')
    expect(Object.isFrozen(info)).toBe(true)
    expect(Object.isFrozen(info?.shape)).toBe(true)
  })
})

describe('parseHeaderLength', () => {
  function prefix(length: bigint): Uint8Array {
    const bytes = new Uint8Array(10).subarray(1, 9)
    new DataView(bytes.buffer, 1).setBigUint64(0, length, true)
    return bytes
  }

  it('reads a little-endian length that need not be a multiple of 8', () => {
    expect(parseHeaderLength(prefix(3n), 11)).toBe(3)
    expect(parseHeaderLength(prefix(0n), 8)).toBe(0)
    expect(parseHeaderLength(prefix(100_000_000n), 200_000_000)).toBe(100_000_000)
  })

  it('refuses what is above the limit or past the end', () => {
    for (const length of [100_000_001n, 2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
      expect(() => parseHeaderLength(prefix(length), 2 ** 52)).toThrow(refusal('header-too-large'))
    }
    expect(() => parseHeaderLength(prefix(4n), 11, 'f')).toThrow(
      expect.objectContaining({ code: 'header-past-end', file: 'f' }),
    )
  })
})
