/** Who may import whom: the plan of the house, as data. */

/** Packages (folder names) that a package may import besides itself. Everything may import core. */
export const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  safetensors: [],
  core: [],
  formats: ['safetensors'],
  pipeline: ['model', 'formats'],
  inspection: ['model', 'formats'],
  kvcache: ['safetensors'],
  testing: ['demo-model'],
}

/** Packages that stand for themselves and import not even core. */
export const ALONE: readonly string[] = ['core', 'safetensors', 'demo-model']

/** Concrete plugins: known to the apps alone. */
export const CONCRETE = /^(quantizer-|transform-|kernels-|palettize$|kvcache$|tuner-)/

/** Packages that run in browsers: no node: imports outside files that say `node` in their name. */
export const BROWSER: readonly string[] = [
  'core',
  'safetensors',
  'formats',
  'model',
  'pipeline',
  'inspection',
  'quantizer-rtn',
  'quantizer-gptq',
  'palettize',
  'quantizer-vptq',
  'quantizer-gptvq',
  'kernels-webgpu',
  'kvcache',
]

export function allowed(from: string): readonly string[] {
  const core = ALONE.includes(from) ? [] : ['core']
  return [...core, ...(MAY_IMPORT[from] ?? [])]
}
