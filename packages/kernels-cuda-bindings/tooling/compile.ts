/**
 * Compiles kernels/*.cu into compiled/: for each source a fatbin with machine code for every architecture and PTX for
 * those to come, and a manifest that says what is in them. Needs nvcc: CUDA 13.
 */

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { Manifest } from '../src/compiled.ts'
import { hashOf, kernelsOf, modules, root } from './sources.ts'

const CUBINS = [75, 80, 86, 89, 90, 100, 120]
/** Of GPUs that are older each has its own code; what comes after must not lose bf16 and FP8. */
const PTX = 89

const nvcc = process.env.NVCC ?? 'nvcc'
const out = path.join(root, 'compiled')
mkdirSync(out, { recursive: true })
const [version] = /V[\d.]+/.exec(execFileSync(nvcc, ['--version'], { encoding: 'utf8' })) ?? ['?']

const all = process.argv.includes('--all')
const listing = path.join(out, 'manifest.json')
const last: Manifest | undefined = existsSync(listing)
  ? JSON.parse(readFileSync(listing, 'utf8'))
  : undefined
// Another compiler makes other code.
const before = last?.nvcc === version ? last : undefined

for (const module of modules()) {
  // What has not changed stays as it is: `--all` compiles everything.
  const image = path.join(out, `${module}.fatbin`)
  if (before?.sources[module] === hashOf(module) && existsSync(image) && !all) continue
  const targets = CUBINS.map((sm) => `-gencode=arch=compute_${sm},code=sm_${sm}`)
  targets.push(`-gencode=arch=compute_${PTX},code=compute_${PTX}`)
  const flags = ['-std=c++17', '-O3', '--fatbin', '--compress-mode=size', ...targets]
  const files = ['-o', image, `${module}.cu`]
  execFileSync(nvcc, [...flags, ...files], { cwd: path.join(root, 'kernels'), stdio: 'inherit' })
  console.log(`${module}.fatbin`)
}

const manifest: Manifest = {
  nvcc: version,
  architectures: [...CUBINS.map((sm) => `sm_${sm}`), `compute_${PTX}`],
  sources: Object.fromEntries(modules().map((module) => [module, hashOf(module)])),
  kernels: Object.assign({}, ...modules().map(kernelsOf)),
}
writeFileSync(listing, `${JSON.stringify(manifest)}\n`)
