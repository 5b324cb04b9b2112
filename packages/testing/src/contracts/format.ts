/** The contract of a checkpoint layout: what it takes, it gives back; what is broken, it names. */

import {
  decode,
  equalMatrices,
  type Format,
  isQuantized,
  type Matrix,
  type RawTensor,
  type StoredModule,
} from '@lowbit/core'
import { describe, expect, it } from 'vitest'
import { denseValues } from '../reference/matrices.ts'
import { type SampleMatrix, sampleMatrices } from '../samples/matrices.ts'

const MODULE = 'model.layers.0.mlp.up_proj'

/** Bits of one element in the spelling of safetensors. */
const DTYPE_BITS: Readonly<Record<string, number>> = {
  BOOL: 8,
  U8: 8,
  I8: 8,
  F8_E4M3: 8,
  F8_E5M2: 8,
  F8_E8M0: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U16: 16,
  I16: 16,
  F16: 16,
  BF16: 16,
  U32: 32,
  I32: 32,
  F32: 32,
  U64: 64,
  I64: 64,
  F64: 64,
}

export interface FormatContractOptions {
  /** Tensors that mean something by being absent (an order that is the natural one). */
  readonly optional?: readonly string[]
  /**
   * `tensorsOf` names only a description, in which the module's other tensors are named. So it is in
   * the layouts that have `refersTo`.
   */
  readonly selfDescribing?: boolean
}

/** Declares the tests of a layout. Samples that it refuses are only checked for a reason. */
export function describeFormat(
  format: Format,
  samples: () => readonly SampleMatrix[] = sampleMatrices,
  { optional = [], selfDescribing = format.refersTo !== undefined }: FormatContractOptions = {},
): void {
  describe(`format ${format.name}`, () => {
    const accepted = (): SampleMatrix[] =>
      samples().filter(({ matrix }) => format.refuses(matrix) === undefined)

    it('says what it is', () => {
      expect(format.kind).toBe('format')
      expect(format.name).toMatch(/^[a-z][a-z0-9_-]*$/)
      expect(format.summary).not.toBe('')
    })

    it('takes some matrices, and says why not of the others', () => {
      expect(accepted().length, 'samples that it takes').toBeGreaterThan(0)
      for (const { name, matrix } of samples()) {
        const reason = format.refuses(matrix)
        if (reason === undefined) continue
        expect(reason, name).not.toBe('')
        expect(() => format.write(MODULE, matrix), `${name}: refused and written`).toThrow()
      }
    })

    it('writes tensors whose bytes fit dtype and shape', () => {
      for (const { name, matrix } of accepted()) {
        const stored = format.write(MODULE, matrix)
        expect(stored.size, name).toBeGreaterThan(0)
        for (const [tensor, raw] of stored) {
          const bits = DTYPE_BITS[raw.dtype]
          const what = `${name}: ${tensor} (${raw.dtype} [${raw.shape}])`
          expect(bits, `${what}: a known dtype`).toBeDefined()
          expect(raw.bytes.length, `${what}: bytes`).toBe(Math.ceil((elements(raw) * bits) / 8))
        }
      }
    })

    it('reads what it wrote, to the bit', () => {
      for (const { name, matrix } of accepted()) {
        const before = format.write(MODULE, matrix)
        const again = restore(format, matrix, before, selfDescribing)
        expect(again, name).toMatchObject({ rows: matrix.rows, columns: matrix.columns })
        expectSameValues(again, matrix, name)
        if (format.name === 'lowbit' && isQuantized(matrix)) {
          expect(isQuantized(again) && equalMatrices(again, matrix), `${name}: equal`).toBe(true)
        }
        const after = format.write(MODULE, again)
        expect([...after.keys()].sort(), `${name}: written again`).toEqual(
          [...before.keys()].sort(),
        )
      }
    })

    it('finds its own tensors among others, and none where there are none', () => {
      expect(format.tensorsOf(() => false)).toBeUndefined()
      for (const { name, matrix } of accepted()) {
        const stored = format.write(MODULE, matrix)
        const names = format.tensorsOf((tensor) => stored.has(tensor)) ?? []
        if (selfDescribing) {
          expect(names.length, name).toBeGreaterThan(0)
          expect([...stored.keys()], name).toEqual(expect.arrayContaining([...names]))
        } else expect([...names].sort(), name).toEqual([...stored.keys()].sort())
      }
    })

    it('its config is told from others', () => {
      for (const { name, matrix } of accepted()) {
        const config = configOf(format, matrix)
        // What is stored plainly needs no mention.
        if (Object.keys(config).length > 0) expect(format.detect(config), name).toBe(true)
        // It goes through a file on its way back.
        expect(JSON.parse(JSON.stringify(config)), name).toEqual(config)
        const description = format.describe(matrix)
        expect(JSON.parse(JSON.stringify(description)), name).toEqual(description)
      }
    })

    it('a broken tensor is an error that names it', () => {
      // One sample of each set of tensors is enough: breaking them all takes long.
      const seen = new Set<string>()
      for (const { name, matrix } of accepted()) {
        const stored = format.write(MODULE, matrix)
        const kind = [...stored].map(([tensor, { dtype }]) => `${tensor}:${dtype}`).join()
        if (seen.has(kind) || matrix.rows * matrix.columns < 100) continue
        seen.add(kind)
        for (const [tensor, raw] of stored) {
          for (const [fault, broken] of faults(raw)) {
            if (!broken && optional.includes(tensor)) continue
            const mangled = new Map(stored)
            if (broken) mangled.set(tensor, broken)
            else mangled.delete(tensor)
            expectNamed(`${name}: ${tensor} ${fault}`, tensor, () =>
              read(format, matrix, mangled, [...stored.keys()]),
            )
          }
        }
      }
    })
  })
}

const elements = ({ shape }: RawTensor): number => shape.reduce((all, size) => all * size, 1)

/** Ways in which a file can be wrong; undefined leaves the tensor out. */
function faults(raw: RawTensor): [string, RawTensor | undefined][] {
  const cut = { ...raw, bytes: raw.bytes.subarray(0, raw.bytes.length - 1) }
  const dtype = { ...raw, dtype: raw.dtype === 'F64' ? 'I64' : 'F64' }
  const longer = raw.shape.map((size, axis) => (axis === 0 ? size + 1 : size))
  const shape = longer.length > 0 ? longer : [2]
  return [
    ['missing', undefined],
    ['truncated', cut],
    ['of another dtype', dtype],
    ['of another shape', { ...raw, shape }],
  ]
}

/** What config.json says about a checkpoint of this one module. */
const configOf = (format: Format, matrix: Matrix): Readonly<Record<string, unknown>> =>
  format.config(new Map([[MODULE, format.describe(matrix)]]))

/** Through the names that the format itself asks for, as a checkpoint does it. */
function restore(
  format: Format,
  matrix: Matrix,
  stored: StoredModule,
  selfDescribing: boolean,
): Matrix {
  const names = format.tensorsOf((name) => stored.has(name))
  if (!names) expect.fail(`${format.name} does not know the tensors ${[...stored.keys()]}`)
  return read(format, matrix, stored, selfDescribing ? [...stored.keys()] : names)
}

function read(
  format: Format,
  matrix: Matrix,
  stored: StoredModule,
  names: readonly string[],
): Matrix {
  const tensors = new Map<string, RawTensor>()
  for (const name of names) {
    const raw = stored.get(name)
    if (raw) tensors.set(name, raw)
  }
  return format.read(MODULE, tensors, { config: configOf(format, matrix) })
}

function expectSameValues(actual: Matrix, expected: Matrix, what: string): void {
  const [a, b] = [values(actual), values(expected)]
  const at = a.findIndex((value, i) => value !== b[i])
  if (at >= 0) expect.fail(`${what}: weight ${at} is ${a[at]} and was ${b[at]}`)
}

const values = (matrix: Matrix): Float32Array =>
  isQuantized(matrix) ? decode(matrix) : denseValues(matrix)

/** The tensor must stand in the message. */
function expectNamed(what: string, tensor: string, call: () => unknown): void {
  let error: unknown
  try {
    call()
  } catch (thrown) {
    error = thrown
  }
  if (error === undefined) expect.fail(`${what}: read as if nothing were wrong`)
  expect(error, what).toBeInstanceOf(Error)
  expect((error as Error).message, what).toContain(tensor.replace(/^\//, ''))
}
