/**
 * The contract of kernels on software drivers of Vulkan, where their parts are: lavapipe (Mesa, with f16 and
 * subgroups) and SwiftShader (neither f16 nor wide subgroups). Arguments go to vitest, but for names of drivers, which
 * choose among them: `npm run test:webgpu -- lavapipe -t gram`.
 *
 * Parts are looked for in the system and in the folders of these variables, each that of a driver's description
 * (`*_icd.json`): LAVAPIPE_ICD, SWIFTSHADER_ICD; VULKAN_LIBRARY is the folder of libvulkan.so.1.
 */

import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, globSync } from 'node:fs'
import path from 'node:path'

const root = path.resolve(import.meta.dirname, '../..')
const home = path.join(root, 'packages/kernels-webgpu')

const DRIVERS = [
  {
    name: 'lavapipe',
    variable: 'LAVAPIPE_ICD',
    places: ['/usr/share/vulkan/icd.d/lvp_icd*.json'],
    missing: 'install mesa-vulkan-drivers (Mesa 24 or newer)',
  },
  {
    name: 'swiftshader',
    variable: 'SWIFTSHADER_ICD',
    places: ['/usr/lib/chromium/vk_swiftshader_icd.json'],
    missing: 'it comes with Chromium and with npm @sparticuz/chromium',
  },
] as const

const libraries = process.env.VULKAN_LIBRARY
if (!libraries && !hasLoader()) {
  console.log('skipped lavapipe and swiftshader: libvulkan.so.1 is not there (install libvulkan1)')
  process.exit(0)
}
const named = process.argv
  .slice(2)
  .filter((argument) => DRIVERS.some(({ name }) => name === argument))
const passed = process.argv.slice(2).filter((argument) => !named.includes(argument))
let failed = false
for (const { name, variable, places, missing } of DRIVERS) {
  if (named.length > 0 && !named.includes(name)) continue
  const given = process.env[variable]
  const description = given ?? globSync([...places])[0]
  if (!description || !existsSync(description)) {
    console.log(
      `skipped ${name}: ${given ? `${given} is not there` : missing}; ${variable} names it`,
    )
    continue
  }
  const env = {
    ...process.env,
    VK_DRIVER_FILES: description,
    ...(libraries && {
      LD_LIBRARY_PATH: [libraries, process.env.LD_LIBRARY_PATH].filter(Boolean).join(':'),
    }),
  }
  const found = probe(env)
  // A driver that somebody named must work; one that merely lies around may be too old for Dawn.
  if (!found.adapter) {
    console.log(
      given
        ? `✗ ${name}: Dawn takes no adapter of ${description}`
        : `skipped ${name}: Dawn takes no adapter of ${description}, which is too old or broken; ${missing}, or name another by ${variable}`,
    )
    if (found.said) console.log(found.said)
    failed ||= given !== undefined
    continue
  }
  console.log(`\n› ${name}: ${description}: ${found.adapter}`)
  const config = path.join(home, 'gpu-tests/vitest.config.ts')
  const { status } = spawnSync(
    path.join(root, 'node_modules/.bin/vitest'),
    ['run', '--root', home, '--config', config, ...passed],
    { stdio: 'inherit', env },
  )
  failed ||= status !== 0
}
process.exit(failed ? 1 : 0)

/** The adapter that Dawn finds with a driver, and what the driver and Dawn say where there is none. */
function probe(env: NodeJS.ProcessEnv): { adapter?: string; said: string } {
  const script = `
    import { create } from 'webgpu'
    const gpu = create([])
    const adapter = await gpu.requestAdapter()
    if (adapter) console.log(adapter.info.description || adapter.info.vendor || 'unnamed')
    process.exit(0)`
  const { stdout, stderr } = spawnSync(
    process.execPath,
    ['--input-type=module', '--eval', script],
    { cwd: home, env, encoding: 'utf8' },
  )
  return { adapter: stdout.trim() || undefined, said: stderr.trim() }
}

function hasLoader(): boolean {
  try {
    return execFileSync('ldconfig', ['-p'], { encoding: 'utf8' }).includes('libvulkan.so.1')
  } catch {
    return false
  }
}
