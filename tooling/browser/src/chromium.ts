/** Where Chromium is, and how it is started so that it has WebGPU without a GPU. */

import { existsSync } from 'node:fs'
import path from 'node:path'
import { type Browser, chromium } from 'playwright-core'

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']

/** The executable that CHROMIUM names, or the first one on the PATH. */
export function findChromium(): string | undefined {
  const given = process.env.CHROMIUM
  if (given) return existsSync(given) ? given : undefined
  const folders = (process.env.PATH ?? '').split(path.delimiter)
  return folders
    .flatMap((folder) => NAMES.map((name) => path.join(folder, name)))
    .find((file) => existsSync(file))
}

export const MISSING = process.env.CHROMIUM
  ? `CHROMIUM names ${process.env.CHROMIUM}, which is not there`
  : 'no Chromium on the PATH; install chromium, or name its executable in CHROMIUM'

export function launch(executablePath: string, args: readonly string[] = []): Promise<Browser> {
  return chromium.launch({
    executablePath,
    headless: true,
    args: ['--no-sandbox', '--enable-unsafe-webgpu', '--ignore-gpu-blocklist', ...args],
  })
}

/** Flags that choose an adapter: Chromium's own software driver, or the system's Vulkan (lavapipe with its VK_DRIVER_FILES). */
export const ADAPTERS: Readonly<Record<string, readonly string[]>> = {
  default: [],
  swiftshader: ['--use-webgpu-adapter=swiftshader'],
  vulkan: [
    '--use-angle=vulkan',
    '--enable-features=Vulkan',
    '--use-vulkan=native',
    '--use-webgpu-adapter=default',
  ],
}
