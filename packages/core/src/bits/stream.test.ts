import fc from 'fast-check'
import { expect, it } from 'vitest'
import { packCodes, packedBytes, unpackCodes } from './stream.ts'

it('every width packs and unpacks', () => {
  fc.assert(
    fc.property(
      fc
        .integer({ min: 1, max: 16 })
        .chain((bits) =>
          fc.tuple(fc.constant(bits), fc.array(fc.integer({ min: 0, max: 2 ** bits - 1 }))),
        ),
      ([bits, codes]) => {
        const packed = packCodes(codes, bits)
        expect(packed.data.length).toBe(packedBytes(codes.length, bits))
        expect([...unpackCodes(packed)]).toEqual(codes)
      },
    ),
  )
})

it('3 bits lie LSB first across bytes', () => {
  // Codes 1, 2, 3 at bits 0, 3, 6: 1 + 2·8 + 3·64 = 209, and nothing left over.
  expect([...packCodes([1, 2, 3], 3).data]).toEqual([209, 0])
  expect([...packCodes([7, 7, 7], 3).data]).toEqual([255, 1])
})

it('refuses codes that do not fit and streams that are cut off', () => {
  expect(() => packCodes([4], 2)).toThrow(/does not fit into 2 bits/)
  expect(() => packCodes([0], 17)).toThrow(/1 to 16 bits/)
  expect(() => unpackCodes({ bits: 4, count: 5, data: new Uint8Array(2) })).toThrow(/need 3 bytes/)
})
