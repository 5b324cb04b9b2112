/** The compiled kernels that come with the package, made by tooling/compile.ts. */

import { readFileSync } from 'node:fs'

/** `words`: an array of u32, the last field. */
export type FieldType = 'pointer' | 'u32' | 'f32' | 'words'

/** Name, type and offset of a field of a kernel's struct. */
export type Field = readonly [name: string, type: FieldType, offset: number]

export interface CompiledKernel {
  readonly module: string
  /** Threads of a block. */
  readonly threads: number
  /** Size of its struct. */
  readonly bytes: number
  readonly fields: readonly Field[]
}

export interface Manifest {
  /** The compiler's version. */
  readonly nvcc: string
  readonly architectures: readonly string[]
  /** SHA-256 of each module's sources. */
  readonly sources: Readonly<Record<string, string>>
  readonly kernels: Readonly<Record<string, CompiledKernel>>
}

const file = (name: string): URL => new URL(`../compiled/${name}`, import.meta.url)

let known: Manifest | undefined

export function manifest(): Manifest {
  known ??= JSON.parse(readFileSync(file('manifest.json'), 'utf8')) as Manifest
  return known
}

/** A module as the driver takes it. */
export const imageOf = (module: string): Uint8Array => readFileSync(file(`${module}.fatbin`))
