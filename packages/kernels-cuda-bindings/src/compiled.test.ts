/** The compiled kernels belong to the sources: no compiler is needed to see it. */

import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { hashOf, kernelsOf, modules } from '../tooling/sources.ts'
import { imageOf, manifest } from './compiled.ts'

const { sources, kernels, architectures } = manifest()

it('was compiled from these sources: else run `node tooling/compile.ts`', () => {
  expect(sources).toEqual(Object.fromEntries(modules().map((name) => [name, hashOf(name)])))
  expect(kernels).toEqual(Object.assign({}, ...modules().map(kernelsOf)))
})

it.each(modules())('%s is a fatbin that names its kernels', (module) => {
  const image = imageOf(module)
  expect(new DataView(image.buffer, image.byteOffset).getUint32(0, true)).toBe(0xba55ed50)
  expect(Object.keys(kernelsOf(module)).length).toBeGreaterThan(0)
})

it('has machine code from Turing to Blackwell, and PTX for what comes', () => {
  const wanted = ['sm_75', 'sm_80', 'sm_86', 'sm_89', 'sm_90', 'sm_100', 'sm_120', 'compute_89']
  expect(architectures).toEqual(wanted)
})

it('every kernel that the sources declare was found, and their structs fit the launcher', () => {
  for (const module of modules()) {
    const text = readFileSync(new URL(`../kernels/${module}.cu`, import.meta.url), 'utf8')
    expect(Object.keys(kernelsOf(module)).length).toBe(text.split(/\bKERNEL\(/).length - 1)
  }
  expect(Object.values(kernels).every(({ bytes }) => bytes <= 2048)).toBe(true)
})
