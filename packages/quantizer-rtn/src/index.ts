export { activationOptions, activations } from './activations.ts'
export { rtn, rtnOptions } from './rtn.ts'
