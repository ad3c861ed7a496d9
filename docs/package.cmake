# The Debian package: cpack in the build directory. Everything below /usr but /etc/default/claudefs.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME claudefs)
set(CPACK_PACKAGE_VENDOR ClaudeFS)
set(CPACK_PACKAGE_CONTACT "ClaudeFS <claudefs@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "one file system, writable at several sites")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION "Each site keeps a complete tree of files of its own, works on it
 whether or not the others can be reached, and exchanges with them what changed when they can.
 Conflicting changes are kept, both sides of them.")
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS fuse3)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(debian ${CMAKE_CURRENT_SOURCE_DIR}/debian)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
  ${debian}/postinst ${debian}/prerm ${debian}/postrm ${debian}/conffiles)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_STRIP_FILES ON)
# Absolute destinations, and units that name /usr/bin, whatever this build was configured for.
set(CPACK_SET_DESTDIR ON)
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
include(CPack)
