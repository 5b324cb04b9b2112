import { readFile } from 'node:fs/promises'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { SafetensorsError } from './error.ts'
import { openSafetensors } from './open.ts'
import { openSharded } from './sharded.ts'
import { bytesSource, type Source } from './source.ts'

const fixtures = new URL('../fixtures/', import.meta.url)
const seeds = await Promise.all(
  ['numpy.safetensors', 'narrow.safetensors', 'no-tensors.safetensors'].map(
    async (name) => new Uint8Array(await readFile(new URL(name, fixtures))),
  ),
)

/** Opens and reads everything; only a SafetensorsError may come of it. */
async function survive(bytes: Uint8Array): Promise<'opened' | 'refused'> {
  const inner = bytesSource(bytes)
  const guarded: Source = {
    size: inner.size,
    read(offset, length) {
      // Whatever the header says, no read may leave the file.
      expect(offset >= 0 && length >= 0 && offset + length <= bytes.length).toBe(true)
      return inner.read(offset, length)
    },
  }
  try {
    const file = await openSafetensors(guarded)
    let total = 0
    for (const [name, { begin, end }] of file.tensors) {
      total += (await file.read(name)).byteLength
      expect(begin <= end && end <= bytes.length).toBe(true)
    }
    expect(total).toBeLessThanOrEqual(bytes.length)
    return 'opened'
  } catch (error) {
    if (!(error instanceof SafetensorsError)) throw error
    expect(error.message.length).toBeLessThan(2000)
    return 'refused'
  }
}

function withHeader(text: string, data: number): Uint8Array {
  const json = new TextEncoder().encode(text)
  const bytes = new Uint8Array(8 + json.length + data)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true)
  bytes.set(json, 8)
  return bytes
}

const edit = fc.record({
  kind: fc.constantFrom('flip', 'insert', 'remove', 'copy', 'cut'),
  at: fc.nat({ max: 10_000 }),
  length: fc.integer({ min: 1, max: 16 }),
  value: fc.oneof(fc.nat(255), fc.constantFrom(...Buffer.from('{}[]",:0123456789-.e\\'))),
})

type Edit = typeof edit extends fc.Arbitrary<infer T> ? T : never

function mutate(bytes: Uint8Array, edits: readonly Edit[]): Uint8Array {
  const list = [...bytes]
  for (const { kind, at, length, value } of edits) {
    const place = list.length === 0 ? 0 : at % list.length
    if (kind === 'flip') list[place] = value
    else if (kind === 'insert') list.splice(place, 0, value)
    else if (kind === 'remove') list.splice(place, length)
    else if (kind === 'copy') list.splice(place, 0, ...list.slice(at % 97, (at % 97) + length))
    else list.length = place
  }
  return Uint8Array.from(list)
}

// Text made of the pieces of headers: closer to valid than bytes at random.
const piece = fc.constantFrom(
  ...['{', '}', '[', ']', ':', ',', '"a":', '"b":', '"dtype":', '"shape":', '"data_offsets":'],
  ...['"U8"', '"F4"', '"F64"', '"X"', '[0,1]', '[1]', '[]', '[0,0]', '[1,2]', '-1', '1.5', '1e9'],
  ...['9007199254740993', '"__metadata__":', '"__proto__":', 'null', 'true', '"\\ud800"', ' '],
  '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}',
  '{"dtype":"U8","shape":[1],"data_offsets":[1,2]}',
)

describe('hostile bytes', () => {
  it('at random are refused', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 64 }), async (bytes) => {
        await survive(bytes)
      }),
      { numRuns: 1000 },
    )
  })

  it('in a valid file are refused or do no harm', async () => {
    const seen = { opened: 0, refused: 0 }
    const edits = fc.array(edit, { minLength: 1, maxLength: 4 })
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...seeds), edits, async (seed, list) => {
        seen[await survive(mutate(seed, list))]++
      }),
      { numRuns: 4000 },
    )
    // Both must happen, or the mutations test nothing.
    expect(Math.min(seen.opened, seen.refused)).toBeGreaterThan(20)
  })

  it('in the shape of a header are refused or do no harm', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 14 }), fc.nat(3), async (list, data) => {
        await survive(withHeader(`{${list.join('')}`, data))
        await survive(withHeader(`{"a":{${list.join('')}}}`, data))
      }),
      { numRuns: 1500 },
    )
  })

  it('cut at any length are refused', async () => {
    for (const seed of seeds) {
      for (let length = 0; length < seed.length; length++) {
        expect(await survive(seed.subarray(0, length))).toBe('refused')
      }
    }
  })

  it('in an index are refused', async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.string(), fc.json()), async (index) => {
        const opening = openSharded(index, () => Promise.reject(new Error('none')))
        await expect(opening).rejects.toBeInstanceOf(SafetensorsError)
      }),
      { numRuns: 500 },
    )
  })

  it('of megabytes are refused quickly', async () => {
    const many = 500_000
    const headers = [
      `{"a":{"dtype":"U8","shape":[${'1,'.repeat(many)}1],"data_offsets":[0,1]}}`,
      `{"a":{"dtype":"U8","shape":[${'9'.repeat(many)}],"data_offsets":[0,1]}}`,
      `{"a":${'{"a":'.repeat(many)}`,
      `{"${'a'.repeat(many)}":1}`,
      `{"a":{"x":[${'[],'.repeat(many)}1]}}`,
      `{"a":{"x":"${'\\n'.repeat(many)}"}}`,
      `{${' '.repeat(many)}`,
    ]
    for (const header of headers) {
      const start = performance.now()
      expect(await survive(withHeader(header, 1))).toBe('refused')
      expect(performance.now() - start).toBeLessThan(2000)
    }
  })
})
