/** The compiled WebAssembly, in Node and in browsers. */

import { LowbitError } from '@lowbit/core'

/** The modules' exports: numbers in, at most a number out. */
export type Calls = Record<string, (...args: number[]) => number>

/** Each URL is written out, so that bundlers find the files. */
const modules = {
  strict: () => new URL('../wasm/strict.wasm', import.meta.url),
  relaxed: () => new URL('../wasm/relaxed.wasm', import.meta.url),
  'strict-threads': () => new URL('../wasm/strict-threads.wasm', import.meta.url),
  'relaxed-threads': () => new URL('../wasm/relaxed-threads.wasm', import.meta.url),
}

export type ModuleName = keyof typeof modules

const compiled = new Map<ModuleName, Promise<WebAssembly.Module>>()

export function compile(name: ModuleName): Promise<WebAssembly.Module> {
  let module = compiled.get(name)
  if (!module) {
    module = read(modules[name]()).then((bytes) => WebAssembly.compile(bytes))
    compiled.set(name, module)
    // A failure may pass (a network, a build that was missing): the next call tries again.
    module.catch(() => compiled.delete(name))
  }
  return module
}

async function read(url: URL): Promise<ArrayBuffer | Uint8Array<ArrayBuffer>> {
  if (url.protocol === 'file:') {
    const { readFile } = process.getBuiltinModule('node:fs').promises
    try {
      return await readFile(url)
    } catch (cause) {
      const message = `${url.pathname} is missing: build it with "pnpm run wasm"`
      throw new LowbitError('missing-file', message, { cause })
    }
  }
  const response = await fetch(url)
  if (!response.ok) throw new LowbitError('missing-file', `${url.href}: HTTP ${response.status}`)
  return response.arrayBuffer()
}

/** Whether the engine has relaxed SIMD: validates a function with one `f32x4.relaxed_madd` in it. */
export function hasRelaxedSimd(): boolean {
  const header = [0, 97, 115, 109, 1, 0, 0, 0]
  const type = [1, 5, 1, 0x60, 0, 1, 0x7b]
  const code = [10, 15, 1, 13, 0, 65, 1, 0xfd, 15, 65, 2, 0xfd, 15, 0xfd, 0x80, 2, 11]
  const swizzle = [...header, ...type, 3, 2, 1, 0, ...code]
  return WebAssembly.validate(new Uint8Array(swizzle))
}
