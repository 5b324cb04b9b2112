import { PLAIN } from '../src/gpu/device.ts'
import { webgpu } from '../src/index.ts'

/** What the adapter of these tests has. */
export async function adapterFeatures(): Promise<readonly string[]> {
  const { features, dispose } = await webgpu({ features: [], choices: PLAIN })
  dispose()
  return features
}
