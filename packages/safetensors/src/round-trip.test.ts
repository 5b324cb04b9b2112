import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { bitsPerElement, DTYPES } from './dtype.ts'
import { METADATA_KEY } from './header.ts'
import { openSafetensors } from './open.ts'
import type { TensorData } from './plan.ts'
import { writeSafetensors } from './write.ts'

const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 12 }),
  fc.constantFrom('__proto__', 'constructor', '0', '10', '9', '', 'layer.0.weight', '"\\\n'),
)

// Sub-byte types get a last dimension of 4 so that they fill whole bytes.
const tensor = fc
  .record({
    name: text.filter((name) => name !== METADATA_KEY),
    dtype: fc.constantFrom(...DTYPES),
    dimensions: fc.array(fc.nat({ max: 5 }), { maxLength: 4 }),
    seed: fc.nat(255),
    parts: fc.nat({ max: 3 }),
  })
  .map(({ dimensions, ...rest }) => {
    const shape = bitsPerElement(rest.dtype) < 8 ? [...dimensions, 4] : dimensions
    const elements = shape.reduce((product, dimension) => product * dimension, 1)
    const bytes = Uint8Array.from(
      { length: (elements * bitsPerElement(rest.dtype)) / 8 },
      (_, index) => (index * 31 + rest.seed) & 255,
    )
    return { ...rest, shape, bytes }
  })

function dataOf(bytes: Uint8Array, parts: number): TensorData {
  if (parts === 0) return Promise.resolve(bytes)
  const step = Math.max(1, Math.ceil(bytes.length / parts))
  return (async function* () {
    for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step)
  })()
}

describe('what is written', () => {
  it('reads back the same, aligned to its elements', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(tensor, { maxLength: 6, selector: ({ name }) => name }),
        fc.uniqueArray(fc.tuple(text, text), { maxLength: 3, selector: ([key]) => key }),
        async (tensors, pairs) => {
          const metadata = new Map(pairs)
          const entries = tensors.map(({ name, dtype, shape, bytes, parts }) => ({
            name,
            dtype,
            shape,
            data: () => dataOf(bytes, parts),
          }))
          const chunks: number[] = []
          for await (const part of writeSafetensors(entries, { metadata })) chunks.push(...part)
          const file = await openSafetensors(Uint8Array.from(chunks))
          expect([...file.metadata]).toEqual(pairs)
          expect(file.tensors.size).toBe(tensors.length)
          for (const { name, dtype, shape, bytes } of tensors) {
            const info = file.tensors.get(name)
            expect(info).toMatchObject({ name, dtype, shape })
            expect(await file.read(name)).toEqual(bytes)
            const alignment = Math.max(1, bitsPerElement(dtype) / 8)
            if (Number.isInteger(alignment)) expect((info?.begin ?? 0) % alignment).toBe(0)
            const middle = bytes.length >> 1
            const rest = await file.readRange(name, middle, bytes.length - middle)
            expect(rest).toEqual(bytes.subarray(middle))
          }
        },
      ),
      { numRuns: 200 },
    )
  })
})
